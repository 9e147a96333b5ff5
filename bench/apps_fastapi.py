"""FastAPI's JSON hello, and a body that is validated."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI()


class Item(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    price: float = Field(gt=0)
    tags: list[str] = []


@app.get("/")
async def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}


@app.post("/items")
async def create(item: Item) -> dict[str, str | float | int]:
    return {"name": item.name, "price": item.price, "tags": len(item.tags)}
