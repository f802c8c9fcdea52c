"""The Django app of clusters and of what operators do to them."""
