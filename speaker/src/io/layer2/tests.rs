use super::*;

mod allocation;

#[test]
fn a_thousand_wishes_wake_the_thread_once() {
    let (commands, receiver) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair().unwrap();
    woken.set_nonblocking(true).unwrap();
    let handle = Handle { commands, wake };
    let wishes: Vec<Wish> = (0..1_000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            Wish::Layer2(herald_l2::Input::Held {
                interface: IfIndex(2),
                address: [192, 0, high, low].into(),
            })
        })
        .collect();
    handle.wish(Vec::new());
    handle.wish(wishes.clone());

    let Ok(Command::Wishes(told)) = receiver.try_recv() else {
        unreachable!("the thread is told what is wished");
    };
    assert_eq!(told, wishes);
    assert!(receiver.try_recv().is_err(), "at once");
    let mut byte = [0];
    assert_eq!(woken.recv(&mut byte).unwrap(), 1);
    assert!(woken.recv(&mut byte).is_err(), "and woken once");
}
