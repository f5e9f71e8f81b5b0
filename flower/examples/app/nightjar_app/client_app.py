"""Flower wants an app for clients. It never runs: in its place volunteers train by their coordinator's run file."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Where a SuperNode of Flower itself joins, it is told so."""
    raise NotImplementedError("this app is trained by volunteers, through nightjar-flower")


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """The same."""
    raise NotImplementedError("this app is evaluated by anchor nodes, through nightjar-flower")
