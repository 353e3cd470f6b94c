"""Published weights in and out: what their tensors are called, torch files, import, export."""
