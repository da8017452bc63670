"""One thin file per command of `ecgclip`."""
