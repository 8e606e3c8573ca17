def test_x(started, written, run_cli, store):
    p = started("web")
    written("a")
    written("b", exit=3)
    import subprocess

    for w in (
        ["ps"],
        ["ps", "-a"],
        ["ps", "-a", "--format", "json"],
        ["inspect", "web"],
        ["top", "web"],
        ["top", "web", "-o", "pid,cmd"],
        ["kill", "-s", "USR1", "a"],
        ["stop", "web"],
        ["wait", "b"],
        ["wait", "web"],
        ["stop", "a"],
        ["ps", "-a"],
        ["rm", "a", "b"],
        ["gc"],
        ["ps", "-a"],
    ):
        d = run_cli(*w)
        print(w, d.returncode)
        print(d.stdout, d.stderr)
        p.poll()
    assert 0
