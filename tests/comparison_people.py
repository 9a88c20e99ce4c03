"""People in records, and branches that know them, for the tests of comparisons."""

from dataclasses import replace

import numpy as np
import roma
import torch

from meshrec.camera import camera_from_body_axes, centered_camera, project
from meshrec.data.record_files import Header
from meshrec.data.record_writer import NewRecord, RecordWriter, encode_picture
from meshrec.data.records import Truth
from meshrec.skeletons import COCO17, H36M17
from meshrec.types import BodyParams, Estimate, Keypoints

SIZE = (1280, 960)
CAMERA = centered_camera(*SIZE, 1100.0, "true")
PEOPLE = 12
YAWS_RAD = tuple(np.linspace(-3.0, 3.0, PEOPLE).tolist())
"""How people are turned about the vertical: from the picture's left round by the camera to its right."""


def params_of(count=PEOPLE):
    """People on a row before the camera, turned by `YAWS_RAD` and leaning to their side."""
    generator = torch.Generator().manual_seed(0)
    rotations = roma.rotvec_to_rotmat(0.2 * torch.randn(count, 24, 3, generator=generator))
    yaw = torch.tensor(YAWS_RAD[:count])[:, None] * torch.tensor([0.0, 1.0, 0.0])
    lean = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.6]))
    rotations[:, 0] = camera_from_body_axes() @ roma.rotvec_to_rotmat(yaw) @ lean
    across = torch.linspace(-0.6, 0.6, count)[:, None]
    transl_m = torch.cat([across, 0.2 * across, 2.6 + across.abs()], dim=-1)
    return BodyParams.from_rotations(rotations, torch.randn(count, 10, generator=generator), transl_m)


def write_people(folder, model, sequences=None, subjects=None, known=True):
    """Records of grey pictures, large enough to be stored smaller than the photographs; `known`: with their truth."""
    params = params_of()
    xy_px = project(model.regressed(params, COCO17), CAMERA)
    pixels = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    with RecordWriter(folder, Header("lab", "test", COCO17.name, "", made_from="nothing", licence="none")) as writer:
        for index in range(PEOPLE):
            box = torch.cat([xy_px[index].amin(0) - 20, xy_px[index].amax(0) + 20])
            keypoints = Keypoints(xy_px[index], torch.ones(len(COCO17)), COCO17)
            told = {
                "sequence": "" if sequences is None else sequences[index],
                "subject": "" if subjects is None else subjects[index],
                "source": f"{index}.jpg",
                "frame": index,
            }
            truth = Truth(params[index], "neutral") if known else None
            writer.add(NewRecord(encode_picture(pixels, box), box, keypoints, CAMERA, truth, **told))
    return folder


class Knowing:
    """A branch that knows everybody by the name of their photograph; `change` is what it gets wrong."""

    def __init__(self, name, model, change=lambda estimate, index: estimate):
        self.name, self.model, self.change, self.params, self.asked = name, model, change, params_of(), []

    def __call__(self, photo, people, camera):
        self.asked.append((int(photo.path.stem), people[0].keypoints.xy_px))
        return self.change(self.estimate_of(int(photo.path.stem), camera), int(photo.path.stem))

    def estimate_of(self, index, camera):
        """The truth of somebody."""
        params = self.params[index : index + 1]
        joints17 = self.model.regressed(params, H36M17)
        pelvis = joints17[:, H36M17.index("pelvis")]
        cameras = camera.map(lambda tensor: tensor.expand(1, *tensor.shape))
        sure = torch.ones(1, 17)
        known = joints17 - pelvis[:, None]
        return Estimate(self.name, known, sure, sure > 0, pelvis, params, self.model(params), cameras)


def shifted(*joints, by=(0.0, 0.03, 0.0)):
    """A branch's mistake: some joints are elsewhere, by metres."""

    def change(estimate, index):
        joints17 = estimate.joints17_m.clone()
        joints17[:, H36M17.indices(*joints)] += torch.tensor(by)
        return replace(estimate, joints17_m=joints17)

    return change


def bare(estimate, index):
    """Joints alone, without a place."""
    return replace(estimate, root_m=None, body=None, params=None)
