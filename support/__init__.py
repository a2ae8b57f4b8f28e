"""What the chapters stand on; you need not open it to read them, and it imports nothing of them.

errors.py       how a command begins and ends: shared options, one clear line, an exit code
options.py      the options of finetune.py, with the reason for every default
banner.py       what is said of data and runs: what was understood, the plan, a line an epoch
demo.py         what --demo has in place of a download: an untrained model, and the made-up reviews
                of demo_reviews/
tables.py       where texts and labels come from: files, folders, data sets of the hub
reading.py      files as people have them: what one is, and its rows
textfiles.py    from bytes to cells, and which column is which
large.py        lists of a million texts, or of their token ids, that take little memory
windows.py      texts that are longer than the model can read, in windows that overlap
faster.py       less to compute, and the rest of it in the way that is fastest here
hub.py          fetching models and data sets over a network that may be slow, broken, or absent
pretrained.py   what is known of pretrained models: safe loading, names of their parts
devices.py      which device computes, and one run on many devices with torchrun
files.py        files that are whole or not there, and folders that only one process writes to
saved.py        what stands beside the weights: run.json, the model card, the answers
runs.py         a run's folder, from the first minute to the last, and what makes it another run
unfinished.py   a run that may be stopped at any moment: its record, its checkpoints, Ctrl-C
rows.py         predict.py --file: a file of any length, row by row
"""
