"""What the clusters look like at this moment, kept in the memory of each web process."""
