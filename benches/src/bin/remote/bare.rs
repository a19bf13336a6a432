//! The same with lapin alone: a request has a correlation id and says where to reply, the answerer acknowledges each,
//! and the caller's one consumer of replies wakes whoever waits.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use actix_rt::System;
use callboard_benches::{Outcome, broker};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{Answerer, IN_FLIGHT, Load, PAYLOAD, race};

async fn channel() -> Outcome<(Connection, Channel)> {
    let connection = Connection::connect(&broker::url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// A queue that goes with its connection.
async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Outcome<Consumer> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    Ok(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
}

pub fn measure(load: Load) -> Outcome<Duration> {
    let queue = format!("bench-bare-{}", Uuid::now_v7().simple());
    let answerer = {
        let queue = queue.clone();
        Answerer::start(move |ready, mut stop| async move {
            let (_connection, channel) = channel().await?;
            channel.basic_qos(u16::try_from(IN_FLIGHT)?, BasicQosOptions::default()).await?;
            let mut requests = consume(&channel, &queue, false).await?;
            ready.send(())?;
            let reply = vec![b'y'; PAYLOAD.1];
            loop {
                let request = tokio::select! {
                    _ = &mut stop => return Ok(()),
                    request = requests.next() => request.ok_or("the requests ended")??,
                };
                let (channel, reply) = (channel.clone(), reply.clone());
                actix_rt::spawn(async move {
                    let properties = &request.properties;
                    let (to, id) = (properties.reply_to().clone(), properties.correlation_id().clone());
                    let properties = BasicProperties::default().with_correlation_id(id.unwrap_or_default());
                    let options = BasicPublishOptions::default();
                    channel.basic_publish("".into(), to.unwrap_or_default(), options, &reply, properties).await?;
                    request.ack(BasicAckOptions::default()).await
                });
            }
        })?
    };
    let took = System::new().block_on(async {
        let (_connection, channel) = channel().await?;
        let to = format!("{queue}-replies");
        let mut replies = consume(&channel, &to, true).await?;
        let waiting: Rc<RefCell<HashMap<u64, oneshot::Sender<Vec<u8>>>>> = Rc::default();
        let answered = waiting.clone();
        let dispatcher = actix_rt::spawn(async move {
            while let Some(Ok(reply)) = replies.next().await {
                let id = reply.properties.correlation_id().as_ref().and_then(|id| id.as_str().parse().ok());
                let sender = id.and_then(|id: u64| answered.borrow_mut().remove(&id));
                if let Some(sender) = sender {
                    let _ = sender.send(reply.data);
                }
            }
        });
        let next = Rc::new(RefCell::new(0_u64));
        let took = race(load, move || {
            let (channel, waiting, queue, to) = (channel.clone(), waiting.clone(), queue.clone(), to.clone());
            let id = {
                let mut next = next.borrow_mut();
                *next += 1;
                *next
            };
            async move {
                let (sender, reply) = oneshot::channel();
                waiting.borrow_mut().insert(id, sender);
                let properties = BasicProperties::default()
                    .with_reply_to(to.as_str().into())
                    .with_correlation_id(id.to_string().into())
                    .with_expiration("30000".into());
                let request = vec![b'x'; PAYLOAD.0];
                let options = BasicPublishOptions::default();
                channel.basic_publish("".into(), queue.as_str().into(), options, &request, properties).await?;
                std::hint::black_box(reply.await?);
                Ok(())
            }
        })
        .await;
        dispatcher.abort();
        took
    });
    answerer.stop()?;
    took
}
