"""What Fast and Faster R-CNN share: boxes, views, proposals, the detector and how it is scored."""
