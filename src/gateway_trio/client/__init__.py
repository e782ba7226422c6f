"""A client library for gateways: connect, prompt, and come back. See docs/client.md.

async with connect("ws://127.0.0.1:8765", token=token) as client:
    session = await client.new_session()
    prompt = session.prompt("hello")
    async for update in prompt:
        if isinstance(update, Text):
            print(update.text, end="")
    print(prompt.outcome)
"""

from gateway_trio.client.address import DEFAULT_URL
from gateway_trio.client.client import Client
from gateway_trio.client.connecting import connect
from gateway_trio.client.errors import ClientError, Closed, Lost, Refused, Unauthorized, Unreachable
from gateway_trio.client.facts import ExecFacts, Phase, SessionInfo
from gateway_trio.client.prompts import Outcome, Prompt, Updates
from gateway_trio.client.reading import Reading
from gateway_trio.client.session import Session
from gateway_trio.core.updates import (
    Away,
    Back,
    Command,
    Commands,
    Gap,
    NewConversation,
    Notice,
    Option,
    Other,
    Permission,
    PermissionOver,
    Plan,
    Skipped,
    State,
    Text,
    Tool,
    Update,
    Usage,
)

__all__ = [
    "DEFAULT_URL", "Away", "Back", "Client", "ClientError", "Closed", "Command", "Commands", "ExecFacts", "Gap",
    "Lost", "NewConversation", "Notice", "Option", "Other", "Outcome", "Permission", "PermissionOver", "Phase",
    "Plan", "Prompt", "Reading", "Refused", "Session", "SessionInfo", "Skipped", "State", "Text", "Tool",
    "Unauthorized", "Unreachable", "Update", "Updates", "Usage", "connect",
]  # fmt: skip
