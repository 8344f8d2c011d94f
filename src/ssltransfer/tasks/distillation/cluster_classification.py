"""Cluster classification (Noroozi et al. 2018, section 3): classify images by their cluster."""

from __future__ import annotations

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.methods import ClusterClassification
from ssltransfer.logs import logger
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.tasks.supervised import Classifier


@STUDENT_METHODS.register(ClusterClassification)
def cluster_classification(given: StudentInputs) -> Classifier:
    """The classifier of pseudo-labels, which are the labels of the index.

    Raises:
        ArtifactError: all images are in one cluster.
    """
    clusters = len(given.index.classes)
    sizes = np.bincount(given.index.labels, minlength=clusters)
    used = int((sizes > 0).sum())
    if used < 2:
        raise ArtifactError(f"{given.spec.data}: all images are in one cluster; cluster with another k.")
    logger.info(f"{clusters} clusters, {used} with images, {sizes.max()} images in the largest")
    return Classifier(given.spec, clusters)
