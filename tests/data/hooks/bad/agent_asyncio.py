import asyncio

async def main():
    p = await asyncio.create_subprocess_exec("gemini", "-p", "hi")
    await p.wait()

asyncio.run(main())
