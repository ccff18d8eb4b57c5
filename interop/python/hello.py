from confluent_kafka import Producer, Consumer

producer = Producer({"bootstrap.servers": "localhost:9092"})
producer.produce("my-topic", value=b"Hello Kafka!")
producer.flush()

consumer = Consumer({"bootstrap.servers": "localhost:9092",
                     "group.id": "my-group", "auto.offset.reset": "earliest"})
consumer.subscribe(["my-topic"])
while True:
    message = consumer.poll(1.0)
    if message is not None and message.error() is None:
        print(message.value().decode())
