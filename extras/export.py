"""Take a trained model elsewhere: to programs that have no PyTorch.

Teaches   ONNX, a format in which many programs read models: the computation as a list of operators,
          with the weights beside it. And why to compare before you trust: what is exported is not
          the program that was tested.
After     predict.py. Needs three packages more: pip install -r requirements-extra.txt
Run       python -m extras.export --model model
          python -m extras.export --model model --int8
Expect    model.onnx in the model's folder, for any number of texts of any length; with --int8 also
          model-int8.onnx, in whole numbers: smaller, faster. (Without, an older one goes.) Each is
          loaded again and asked about 200 reviews of the validation split, from the shortest to the
          longest; how far its logits are from ours is printed. One with other answers is not kept.
Shows     $ python -m extras.export --model demo
          model.onnx      0.8 MB, 32 bits
                          200 of 200 answers equal; logits differ by up to 4e-06
          ...
"""

import logging
import os
import tempfile
import warnings
from pathlib import Path

import numpy
import torch

from dataset import encode, load_split, make_collate, make_examples
from model import load_model
from support.errors import UserError, extra_packages, make_parser, run_command
from support.hub import connect_to_hub
from support.pretrained import find_model
from support.saved import data_of_training

NAMES = ["input_ids", "attention_mask"]
REVIEWS = 200  # to compare with
FAR = 1e-4  # logits of the same weights in 32 bits: further apart they are not the same model
EQUAL = 0.99  # of int8's answers


def write_onnx(model, path):
    """Write a model as ONNX, for any B and T."""
    some = torch.arange(3, 13).reshape(2, 5) % model.config.vocab_size  # [2, 5], to be traced with
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", min=2, max=1 << 16)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            model.eval(),
            f=path,
            kwargs={"input_ids": some, "attention_mask": torch.ones_like(some)},
            input_names=NAMES,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(NAMES, sizes),
            dynamo=True,
            external_data=False,  # one file
            verbose=False,
        )


def write_int8(source, path, left_out):
    """The same with whole numbers in its matrices, and in what they are multiplied with.

    left_out: says of a matrix [in, out], by its two sizes, whether it keeps its 32 bits.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source).graph
    sizes = {one.name: tuple(one.dims) for one in graph.initializer if len(one.dims) == 2}
    kept = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and any(left_out(*sizes[n]) for n in node.input if n in sizes)
    ]
    quantize_dynamic(
        source,
        path,
        per_channel=True,  # a scale for each column of a matrix
        reduce_range=True,  # seven bits, so that no CPU's sums overflow
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )


# ONNX Runtime finds one scale for all vectors of a batch. That can be too coarse where a few tokens
# have numbers far larger than all others, most of all in what comes out of GELU and goes into the
# matrices that have more rows than columns. So these are left out if they have to be.
LADDER = {
    "all matrices": lambda rows, columns: False,
    "all but those behind GELU": lambda rows, columns: rows > columns,
    "those of attention": lambda rows, columns: rows != columns,
}


def ask(path, batches):
    """The logits [N, C] that ONNX Runtime computes with a file. batches: dicts of tensors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = ({name: batch[name].numpy() for name in NAMES} for batch in batches)
    return torch.from_numpy(numpy.concatenate([session.run(None, one)[0] for one in given]))


def main():
    """Export, load again, compare."""
    parser = make_parser(__doc__, "model")
    parser.add_argument("--int8", action="store_true", help="write model-int8.onnx, too")
    args = parser.parse_args()
    with extra_packages():
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    onnxruntime.set_default_logger_severity(3)  # errors only
    folder = find_model(args.model)
    connect_to_hub(data_of_training(folder))
    model, tokenizer, run = load_model(folder)
    # Validation: what is chosen below is not chosen by the test reviews.
    split, _ = load_split(run, "validation", subset=REVIEWS)
    how = run["arguments"]["max_length"], run["arguments"]["truncation"]
    input_ids, _ = encode(sorted(split["texts"], key=len), tokenizer, *how)
    examples = make_examples(input_ids, [0] * len(input_ids))
    collate = make_collate(tokenizer.pad_token_id)
    # Batches of one text and of several, padded ones among them.
    cuts = [0, 1, 2, *range(5, len(examples), 7), len(examples)]
    batches = [collate(examples[start:end]) for start, end in zip(cuts, cuts[1:]) if start < end]
    with torch.inference_mode():
        ours = torch.cat([model(**{n: b[n] for n in NAMES}).logits for b in batches])  # [N, C]

    def compare(path, what):
        theirs = ask(path, batches)  # [N, C]
        equal = int((theirs.argmax(dim=1) == ours.argmax(dim=1)).sum())
        far = (theirs - ours).abs().max().item()
        megabytes = os.path.getsize(path) / 1e6
        print(f"{path.name:15} {megabytes:.1f} MB, {what}", flush=True)
        print(f"{'':15} {equal} of {len(ours)} answers equal; logits differ by up to {far:.0e}")
        return equal, far

    with tempfile.TemporaryDirectory(dir=folder, prefix=".exporting-") as temporary:
        exact, whole = Path(temporary, "model.onnx"), Path(temporary, "model-int8.onnx")
        write_onnx(model, exact)
        _, far = compare(exact, "32 bits")
        if not far <= FAR:  # nan, too
            raise UserError("model.onnx is not the model that was saved: it is not kept")
        (folder / whole.name).unlink(missing_ok=True)  # of the model that was here before
        for what, left_out in LADDER.items() if args.int8 else ():
            logging.disable(logging.WARNING)  # of the quantizer, about itself
            write_int8(exact, whole, left_out)
            logging.disable(logging.NOTSET)
            if compare(whole, f"whole numbers in {what}")[0] >= EQUAL * len(ours):
                os.replace(whole, folder / whole.name)
                break
            print(f"{'':15} not kept: more than one answer in a hundred is another")
        os.replace(exact, folder / exact.name)
    print(f"\nin {folder}. To run it, without PyTorch:")
    print(f'    session = onnxruntime.InferenceSession("{folder}/model.onnx")')
    print('    logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]')
    print(f"ids, mask: int64 [texts, tokens], by {folder}/tokenizer.json;")
    print(f"of a text at most {how[0]} tokens, cut like this: {how[1]} (dataset.truncate())")


if __name__ == "__main__":
    run_command(main)
