"""`python -m saadi`, and with several processes `torchrun -m saadi`."""

from saadi.cli import main

if __name__ == "__main__":
    main()
