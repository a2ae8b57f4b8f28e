"""Texts that are longer than the model can read, in windows that overlap.

The price is a forward pass for each window; what it gains over cutting has to be measured.
"""

import torch


def split_windows(length, room):
    """[(start, end), ...]: windows of at most `room` tokens that cover `length` tokens.

    Neighbours share a quarter, so that a sentence which one cuts is whole in the other. The last
    window is moved back until it is full: a short rest of a text would be judged by little.
    """
    if length <= room:
        return [(0, length)]
    step = max(1, room - room // 4)
    starts = list(range(0, length - room, step)) + [length - room]
    return [(start, start + room) for start in starts]


def encode_windows(whole, before, after, max_length):
    """The token ids of all windows of all texts. Returns (input_ids, owners, spans).

    whole: each text's ids, uncut, with the special ids `before` and `after` them. input_ids: lists
    of at most max_length ids, special ones included. owners: of each window the number of its
    text. spans: its (start, end) in the tokens of the text.
    """
    input_ids, owners, spans = [], [], []
    for number, ids in enumerate(whole):
        ids = ids[len(before) : len(ids) - len(after)]
        for start, end in split_windows(len(ids), max_length - len(before) - len(after)):
            input_ids.append(before + ids[start:end] + after)
            owners.append(number)
            spans.append((start, end))
    return input_ids, owners, spans


def average(logits, owners, count):
    """The mean of the logits of each text's windows. logits: [windows, C]. Returns [count, C].

    The mean is of logits and not of probabilities: a window that is sure should count more than one
    that is not, and a probability can hardly say so, because it ends at 1.
    """
    owners = torch.as_tensor(owners)  # [windows]
    sums = torch.zeros(count, logits.shape[1]).index_add_(0, owners, logits)  # [count, C]
    return sums / torch.bincount(owners, minlength=count)[:, None]
