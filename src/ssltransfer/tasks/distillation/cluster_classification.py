"""Cluster classification (Noroozi et al. 2018, section 3): classify images by their cluster."""

import numpy as np

from ssltransfer.artifacts.files import ArtifactError
from ssltransfer.config.methods import ClusterClassification
from ssltransfer.logs import logger
from ssltransfer.tasks.student import STUDENT_METHODS, StudentInputs
from ssltransfer.tasks.supervised import Classifier


@STUDENT_METHODS.register(ClusterClassification)
def cluster_classification(inputs: StudentInputs) -> Classifier:
    """The classifier of pseudo-labels, which are the labels of the index.

    Raises:
        ArtifactError: all images are in one cluster.
    """
    clusters = len(inputs.index.classes)
    sizes = np.bincount(inputs.index.labels, minlength=clusters)
    used = int((sizes > 0).sum())
    if used < 2:
        raise ArtifactError(f"{inputs.spec.data}: all images are in one cluster; cluster with another k.")
    logger.info(f"{clusters} clusters, {used} with images, {sizes.max()} images in the largest")
    return Classifier(inputs.spec, clusters)
