"""The driver of a transform job, inside the sandbox: it starts the containers of the model and sends them the data.

records     splitting files into records, and records into requests
filters     JSONPath, joining predictions with their input
servers     the model's containers: started, waited for, asked
work        files to answers, in order, so many requests at a time
__main__    one instance of a job: its share of the files

Standard library only, Python 3.7 and later.
"""
