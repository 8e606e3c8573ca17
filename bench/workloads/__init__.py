"""The five workloads: compress, encrypt, compile, serve, transfer, with one face (base.py)."""
