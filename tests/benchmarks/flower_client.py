"""The ClientApp of the Flower benchmark, as Flower's PyTorch quickstart writes one.

The data are read once an actor and kept; model and optimiser are made anew for each message.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from nets import loss_of, network
from work import BATCH, LR, load

app = ClientApp()


@cache
def _work(name: str, rounds: int) -> tuple[Any, ...]:
    torch.set_num_threads(1)
    work = load(name, rounds)
    return work, torch.from_numpy(work.x), torch.from_numpy(work.y), work.orders()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the client that the server put in this node's place."""
    asked = message.content["config"]
    number = int(asked["server-round"])
    places = dict(zip(asked["nodes"], asked["clients"], strict=True))
    work, x, y, orders = _work(str(asked["work"]), int(asked["rounds"]))
    client = int(places[context.node_id])
    model = network(work.name)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    for rows in torch.from_numpy(orders[number, client]).split(BATCH):
        optimiser.zero_grad()
        loss_of(work.name, model(x[rows]), y[rows]).backward()
        optimiser.step()
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": work.size(client)}),
        }
    )
    return Message(content=content, reply_to=message)
