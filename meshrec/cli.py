"""The command line: a table of verbs. A verb's module is imported only when its verb is called."""

import importlib
import os
import sys
from difflib import get_close_matches

VERBS = {
    "recover": ("meshrec.recover:command", "Photographs to bodies: a mesh, an overlay and a result.json per person"),
    "lift": ("meshrec.lift:command", "2D joints to 3D joints: keypoint files or photographs to 17 joints per person"),
    "evaluate": ("meshrec.evaluate:command", "How good a branch is, on people whose 3D is known"),
    "compare": ("meshrec.compare:command", "Which branch to use: several on the same people, as one page"),
    "export": ("meshrec.export:command", "Results and pose files to OBJ, PLY or GLB meshes"),
    "export-onnx": ("meshrec.export_onnx:command", "A mesh network as an ONNX file, checked against PyTorch"),
    "train": (
        "meshrec.train.command:command",
        "Train a pose prior, a lifter or a mesh network; stops and goes on at any time",
    ),
    "sample": ("meshrec.sample:command", "Bodies drawn from a pose prior, as a picture"),
    "score": ("meshrec.score:command", "The least plausible frames of a pose file"),
    "synthesize": (
        "meshrec.synthesize:command",
        "Synthetic people in photographs of whom everything is known, and the benchmark",
    ),
    "assets": ("meshrec.assets:command", "List, check and add SMPL body files of your own"),
}

BY_FILE = {"train"}
"""Verbs that read their own arguments: what they take depends on the file that they are given."""

HELP = """usage: meshrec VERB [options]

Recovers a parametric human body (SMPL) from a photograph or from 2D joints.

verbs:
{verbs}

`meshrec VERB --help` explains a verb. Try: meshrec recover PHOTO.jpg -o out
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0 if all went well, 1 if something failed, 2 if the command was not understood."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(HELP.format(verbs="\n".join(f"  {verb:12} {line}" for verb, (_, line) in VERBS.items())))
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"meshrec {version('meshrec')}\n")
        return 0
    if arguments[0] not in VERBS:
        guess = get_close_matches(arguments[0], VERBS, n=1)
        hint = f"did you mean {guess[0]}?" if guess else f"the verbs are {', '.join(VERBS)}."
        sys.stderr.write(f"meshrec: there is no verb {arguments[0]!r}; {hint}\n")
        return 2
    return run_verb(arguments[0], arguments[1:])


def run_verb(verb: str, arguments: list[str]) -> int:
    """Import the verb's function, make its arguments from the command line, and turn advice into an exit code.

    Of several processes that torchrun started, the first alone gives the advice.
    """
    from meshrec.errors import MeshrecError

    module, function = VERBS[verb][0].split(":")
    command = getattr(importlib.import_module(module), function)
    try:
        if verb in BY_FILE:
            return command(arguments)
        import tyro

        return tyro.cli(command, prog=f"meshrec {verb}", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    except MeshrecError as error:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"meshrec {verb}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
