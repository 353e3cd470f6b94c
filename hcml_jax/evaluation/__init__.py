"""What a network has learnt, by every protocol of the papers; what a run's evaluation writes."""

from hcml_jax.evaluation.neighbours import knn_classify, retrieval_recall
