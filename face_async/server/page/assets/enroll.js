// enroll
