"""Only what pyproject.toml cannot say: cffi builds the C core from its builder."""

from setuptools import setup

setup(cffi_modules=["minictr/_core/build.py:ffi"])
