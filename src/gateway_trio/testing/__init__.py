"""For tests of agents and of programs that embed a gateway: everything in memory, so that virtual time works.

    async with open_gateway(agent=ScriptedAgent({"hi": ["hel", 1.0, "lo"]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        answer = await client.prompt(session, "hi")

Under `trio.testing`'s autojump clock this takes no time. Quick commands run real processes, and time jumps while
a thread works; where both are wanted give the clock an `autojump_threshold`.
"""

from gateway_trio.store_check import check_store
from gateway_trio.testing.agents import STUCK, AskFor, ScriptedAgent
from gateway_trio.testing.clients import AcpClient, AcpError, ChatClient, ours_of
from gateway_trio.testing.lab import Lab, MemoryListener, open_gateway
from gateway_trio.testing.stores import FailingStore, KeptStore

__all__ = [
    "STUCK",
    "AcpClient",
    "AcpError",
    "AskFor",
    "ChatClient",
    "FailingStore",
    "KeptStore",
    "Lab",
    "MemoryListener",
    "ScriptedAgent",
    "check_store",
    "open_gateway",
    "ours_of",
]
