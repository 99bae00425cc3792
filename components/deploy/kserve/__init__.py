"""KServe: a model's versions rolled out as one InferenceService on a cluster."""
