"""A shim: lets torchvision's Python part be imported without its compiled operators.

The torchvision that comes from PyPI is built against a CUDA torch, so its library does not load
beside the CPU torch, and ``import torchvision`` ends at ``torchvision::nms`` and ``qnms``, for
which it registers shapes. Declaring their schemas is all that the import needs; neither has a
kernel, so calling one still raises. Avalanche imports torchvision for its ready data sets, of
which nothing here is used. Import this module before torchvision, and only in the peer's own
environment.
"""

import torch

# Kept, since a library takes its declarations with it.
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _schema in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    LIBRARY.define(_schema)
