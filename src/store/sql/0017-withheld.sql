-- What is withdrawn and has not reached a sink: nobody is expected to hold a token there.
CREATE INDEX delivery_withheld ON delivery (sink, since) WHERE wanted > delivered AND live_until IS NULL;
