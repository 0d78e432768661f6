"""The official Python SDK as a client of an MCP server.

    python client.py '{"command": PROGRAM, "args": [...], "mode": "auto"}'    over stdio
    python client.py '{"url": URL, "mode": "legacy"}'                         over HTTP, the token on the first line of stdin
    python client.py '{"url": URL, "mode": "auto", "client_id": ID, "redirect_uri": URI}'
        over HTTP with a login: it prints `open AUTHORIZATION_URL` to stderr, and reads from stdin where the browser was sent

Lists the tools, calls each of the model server's and what `"calls": [{"name", "arguments"}]` asks for besides, and prints what
came as one JSON object, with the number of steps that were told on the way. Its "model" repeats what it is asked.
"""

import asyncio
import json
import os
import sys
from urllib.parse import parse_qsl, urlsplit

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata
from mcp_types import CreateMessageResult, TextContent

asked = json.loads(sys.argv[1])
steps = []


async def model(_context, params):
    text = f"{params.max_tokens}: {params.messages[0].content.text}"
    return CreateMessageResult(model="echo", role="assistant", content=TextContent(type="text", text=text))


async def step(progress, _total, _message):
    steps.append(progress)


async def call(client, name, arguments, progress=None):
    try:
        result = await client.call_tool(name, arguments, progress_callback=progress)
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)
    except MCPError as error:
        return {"error": {"code": error.code, "message": error.message, "data": error.data}}


async def talk(server):
    async with Client(server, mode=asked["mode"], sampling_callback=model) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        answers = {"tools": tools, "version": client.protocol_version}
        if "get_github_user_info" in tools:
            answers["user"] = await call(client, "get_github_user_info", {"include_repos": True, "repo_limit": 3})
        if "analyze_code_with_llm" in tools:
            arguments = {"code": "fn main() {}", "analysis_type": "security", "max_tokens": 77}
            answers["analysis"] = await call(client, "analyze_code_with_llm", arguments)
        answers["called"] = [await call(client, each["name"], each["arguments"], step) for each in asked.get("calls", [])]
        answers["steps"] = len(steps)
        print(json.dumps(answers))


class Memory:
    """What the SDK keeps of a login, for as long as this program runs."""

    tokens = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return OAuthClientInformationFull(client_id=asked["client_id"], token_endpoint_auth_method="none")

    async def set_client_info(self, client_info):
        raise AssertionError("the client is registered already")


async def show(page):
    print(f"open {page}", file=sys.stderr, flush=True)


async def redirected():
    return AuthorizationCodeResult(**dict(parse_qsl(urlsplit(sys.stdin.readline().strip()).query)))


def identity():
    if "client_id" not in asked:
        return {"headers": {"authorization": f"Bearer {sys.stdin.readline().strip()}"}}
    metadata = OAuthClientMetadata(redirect_uris=[asked["redirect_uri"]])
    return {"auth": OAuthClientProvider(asked["url"], metadata, Memory(), show, redirected)}


async def main():
    if "url" in asked:
        async with httpx2.AsyncClient(**identity()) as http:
            await talk(streamable_http_client(asked["url"], http_client=http))
    else:
        await talk(StdioServerParameters(command=asked["command"], args=asked.get("args", []), env=dict(os.environ)))


asyncio.run(main())
