"""A child process that sleeps for a second."""

import time

if __name__ == "__main__":
    time.sleep(1.0)
