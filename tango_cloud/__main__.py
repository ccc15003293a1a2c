"""`python -m tango_cloud`: the command line, where its script is not on the PATH."""

from tango_cloud.cli.main import main

if __name__ == "__main__":
    main()
