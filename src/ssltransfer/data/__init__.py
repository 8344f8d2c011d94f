"""Published folder layouts -> samples -> batches of pixels; the embedded world."""
