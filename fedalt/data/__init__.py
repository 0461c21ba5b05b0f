"""Data sets, and how their rows are dealt out to clients. See docs/data.md."""

from fedalt.data.anomaly import NORMAL, AnomalySet
from fedalt.data.folder import DataFolder, cache_folder, data_folder, find_file
from fedalt.data.heart import HOSPITALS, Patients, load_heart
from fedalt.data.idx import read_idx
from fedalt.data.images import ImageSet
from fedalt.data.labels import label_table, plot_labels
from fedalt.data.mnist import load_digits, load_fashion_mnist, load_images, load_mnist
from fedalt.data.nsl_kdd import load_nsl_kdd
from fedalt.data.partition_by_name import PARTITIONS, partition
from fedalt.data.partitions import (
    Parts,
    check_partition,
    dirichlet,
    dirichlet_sizes,
    iid,
    pathological,
    sorted_by,
)
from fedalt.data.shakespeare import RoleSet, load_shakespeare
from fedalt.data.shuttle import load_shuttle
from fedalt.data.synthetic import HEAVY_TAILED, Shape, synthetic_anomalies

__all__ = [
    "HEAVY_TAILED",
    "HOSPITALS",
    "NORMAL",
    "PARTITIONS",
    "AnomalySet",
    "DataFolder",
    "ImageSet",
    "Parts",
    "Patients",
    "RoleSet",
    "Shape",
    "cache_folder",
    "check_partition",
    "data_folder",
    "dirichlet",
    "dirichlet_sizes",
    "find_file",
    "iid",
    "label_table",
    "load_digits",
    "load_fashion_mnist",
    "load_heart",
    "load_images",
    "load_mnist",
    "load_nsl_kdd",
    "load_shakespeare",
    "load_shuttle",
    "partition",
    "pathological",
    "plot_labels",
    "read_idx",
    "sorted_by",
    "synthetic_anomalies",
]
