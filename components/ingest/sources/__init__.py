"""Sources of labelled images: digits that a package ships, TensorFlow Datasets, folders, lists; here or in buckets."""
