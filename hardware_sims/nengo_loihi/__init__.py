"""nengo-loihi's Loihi emulator, in an environment of its own behind a worker process."""
