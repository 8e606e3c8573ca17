"""The command line. It talks; nothing below it does."""
