"""What a mesh training starts with: the regressor's weights, and the bodies that it learns."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch

from meshrec.body import BodyModel, load_body_model
from meshrec.data.record_files import BETAS
from meshrec.data.records import Gender
from meshrec.errors import MeshrecError
from meshrec.models.backbones import COARSEST
from meshrec.models.checkpoint import load_backbone
from meshrec.models.mesh_file import open_regressor
from meshrec.models.regressor import MeshNetConfig, MeshRegressor

StartIs = Literal["regressor", "backbone", "guess"]


def started(config: MeshNetConfig, start: Path | None, start_is: StartIs, seed: int) -> MeshRegressor:
    """The regressor at its start: random, but for the weights that it is given."""
    generator = torch.Generator().manual_seed(seed)
    if start_is != "regressor" and start is None:
        raise MeshrecError(
            f"start_is is {start_is}, and no weights are given. Name a {start_is}'s with --start FILE, or begin at "
            f"random ones with --start-is regressor."
        )
    if start_is == "backbone":
        assert start is not None
        network = MeshRegressor(config, generator)
        load_backbone(network, start)
        return network
    if start is None:
        return MeshRegressor(config, generator)
    given = open_regressor(start)
    if start_is == "guess":
        return _with_guess(MeshRegressor(config, generator), given, start)
    wanted, found = (asdict(replace(each, crop_px=COARSEST)) for each in (config, given.config))
    for name, value in wanted.items():
        if found[name] != value:
            raise MeshrecError(
                f"start is {start}, a regressor whose {name} is {found[name]}; network.{name} is {value}. Name "
                f"the weights of such a network, or set network.{name} to {found[name]}."
            )
    given.config = config
    return given.requires_grad_(True)


def _with_guess(network: MeshRegressor, given: MeshRegressor, path: Path) -> MeshRegressor:
    """A network that guesses by the joints as another one does; it learns to correct that guess, which stays."""
    if network.head is None:
        raise MeshrecError(
            "start_is is guess, and there is nothing to learn beside the guess: network.backbone is none. Choose a "
            "backbone, or go on with the guess itself by --start-is regressor."
        )
    if network.guess is None or given.guess is None:
        lacks = "network.base" if network.guess is None else f"that of {path}"
        raise MeshrecError(
            f"start_is is guess, which only networks have whose base is joints, and {lacks} is another. Set "
            f"network.base to joints, and name the weights of a network of that base with --start FILE."
        )
    if network.config.root != given.config.root:
        raise MeshrecError(
            f"start is {path}, a network whose root is {given.config.root}; network.root is {network.config.root}. Set "
            f"network.root to {given.config.root}."
        )
    network.guess.load_state_dict(given.guess.state_dict())
    network.guess.requires_grad_(False)
    return network


def bodies_of(name: str, gendered: bool) -> dict[Gender, BodyModel]:
    """The answers' body, and men's and women's own where they are asked for."""
    bodies: dict[Gender, BodyModel] = {"neutral": load_body_model(name)}
    if gendered:
        bodies |= {"male": load_body_model("male"), "female": load_body_model("female")}
    kind = len(bodies["neutral"].parts)
    for body in bodies.values():
        if body.num_betas < BETAS:
            raise MeshrecError(
                f"The body {body.file.name} has {body.num_betas} shape directions, and a mesh regressor answers with "
                f"{BETAS}. Name another with --body."
            )
        if len(body.parts) != kind:
            raise MeshrecError(
                f"The bodies {name} and {body.file.name} have {kind} and {len(body.parts)} vertices and cannot "
                f"be compared. Name a body of the same kind with --body."
            )
    return bodies
