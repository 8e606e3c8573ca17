"""A program that is observed: what it was denied and why, and what it needs.

observer.py   the tracer, a process by itself; facts.py looks at a stopped program, calls.py: arguments
start.py      a start that is held until the tracer is there: the program's confinement is the one it always has
layers.py     which layer denied a call, by evidence; permissions.py is the kernel's check of file modes
denials.py    the answers, as values
record.py     what it needs, as a profile
"""
