"""Where the same bytes run: bare, minictr, LXC, Docker and the others, with one face (base.py)."""
