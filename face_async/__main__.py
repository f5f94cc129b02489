"""The command line, as ``python -m face_async``."""

from face_async.cli import main

if __name__ == "__main__":
    main()
