"""What the service answers and is asked for, as pydantic models: the OpenAPI document is made from them."""
