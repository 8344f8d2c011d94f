"""Pages of features and clusterings, to look at them."""
