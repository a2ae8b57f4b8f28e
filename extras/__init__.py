"""Commands that build on the chapters (`python -m extras.NAME`), and their parts.

sanity.py       four questions, half a minute, before a run of hours
attention.py    the whole forward pass by hand, and where a model looks
baseline.py     the honest floor: counting words, in seconds
explore.py      a page about a data set: look at it before you train
doubt.py        which labels in it may be wrong
search.py       which settings are better? A search by Optuna, or all of a grid
trial.py        one run of it: finetune.py up to its last epoch
search_page.py  what came out of it, as a table and a page
compare.py      which of two models is better, review by review
behaviour.py    does it understand? Sentences in families
calibration.py  how sure a model is, and how often it is right
explain.py      why did it say so? Each word's share in the decision
tensorboard.py  a run's curves in TensorBoard, while it goes on
report.py       a page about a model: curves, certainty, mistakes
kept.py         what finetune.py and evaluate.py have left behind, read again
charts.py       the pictures on that page
page.py         the parts that pages are made of, where text stays text
export.py       take a model to programs without PyTorch: ONNX, written and compared
app.py          a page where people can ask the model
api.py          an address where programs can
benchmark.py    where the time goes: side by side with Trainer, pipeline and others
contenders.py   the programs that it compares
cost.py         what a run costs in FLOPs, and what the hardware could do at best
"""
