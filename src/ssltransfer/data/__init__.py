"""Formats of data sets, image decoding, transforms, loader, and augmentation on the device."""
