"""Stands in for AWS's inference toolkit: `content_types`, `decoder`, `encoder`, `errors`, `utils`, `environment`,
`default_inference_handler.DefaultInferenceHandler`. The model server itself (`model_server`, `transformer`) is not
served: Penstock's own calls the handlers."""
