"""`python -m recalib`."""

from recalib.cli.app import app

if __name__ == "__main__":
    app(prog_name="recalib")
