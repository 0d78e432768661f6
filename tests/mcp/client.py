"""The official Python SDK as a client of an MCP server, for tests/tests/model_server.rs.

    python client.py '{"command": PROGRAM, "args": [...], "mode": "auto"}'    over stdio
    python client.py '{"url": URL, "mode": "legacy"}'                         over HTTP, the token on the first line of stdin

Lists the tools, calls each of the model server's, and prints what came as one JSON object. Its "model" repeats what it is asked.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CreateMessageResult, TextContent

asked = json.loads(sys.argv[1])


async def model(_context, params):
    text = f"{params.max_tokens}: {params.messages[0].content.text}"
    return CreateMessageResult(model="echo", role="assistant", content=TextContent(type="text", text=text))


async def call(client, name, arguments):
    try:
        result = await client.call_tool(name, arguments)
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
        print(json.dumps(answers))


async def main():
    if "url" in asked:
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {sys.stdin.readline().strip()}"}) as http:
            await talk(streamable_http_client(asked["url"], http_client=http))
    else:
        await talk(StdioServerParameters(command=asked["command"], args=asked.get("args", []), env=dict(os.environ)))


asyncio.run(main())
