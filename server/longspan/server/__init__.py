"""The asyncio server: uploads, tokenising, queueing, answers. Never imports torch."""
