"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null; // nothing is stored: a file has no place of its own to keep it in
  const show = () => {
    root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
    button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to the ${button.textContent.toLowerCase()} theme`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    show();
  });
  dark.addEventListener("change", show);
  let before = null;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => { root.dataset.theme = before || root.dataset.theme; });
  show();
})();
